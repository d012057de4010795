"""The moderation desk: a page on which several moderators decide about donors' messages at the same time."""
