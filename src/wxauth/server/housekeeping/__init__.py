"""Work that runs by itself: sweeping what has ended or expired."""
