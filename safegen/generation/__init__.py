"""From a request to frames: what comes in, what is judged, what is drawn. Nothing here writes a file for a user."""
