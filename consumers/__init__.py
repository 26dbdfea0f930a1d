"""Everything that happens because a record arrived."""
