"""Guards of others: models and services that judge texts beside what ships."""
