"""The measures of one set of slices against another."""
