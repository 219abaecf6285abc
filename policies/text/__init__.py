"""What judges texts: their views, the lexicon, names of people, languages, the trained classifier."""
