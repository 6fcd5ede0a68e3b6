"""Programs compiled for chips that are not there: what they need, and whether they fit."""
