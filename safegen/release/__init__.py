"""The one way out: labelling, marking, encoding, reading back, signing, recording and placing whatever leaves."""
