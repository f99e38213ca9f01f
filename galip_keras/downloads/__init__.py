"""Files of other projects, fetched once, by name, into one folder."""
