"""What auditors ask of a home: questions over the ledger, the daily picture, bundles for regulators."""
