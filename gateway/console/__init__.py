"""The console: server-rendered pages for the people who run drives, behind a login with an API key."""
