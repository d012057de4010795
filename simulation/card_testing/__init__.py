"""A card-testing attack in the middle of a drive, against the code that decides, on a virtual clock."""
