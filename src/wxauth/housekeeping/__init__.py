"""Background work: deleting what has ended or expired."""
