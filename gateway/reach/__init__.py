"""How a drive reaches people: public pages, their links and pictures, and where visitors come from."""
