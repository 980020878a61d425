"""From CT scans of the head to segments of the skull."""
