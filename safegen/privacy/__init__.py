"""Personal data: which fields an entry has, erasing a subject's, and how long what is kept."""
