"""One module per page, with the fragments and rows that keep it up to date."""
