"""Results of an audit, as files for people and for machines: each format reads the same record."""
