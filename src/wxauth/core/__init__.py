"""What most packages use. Use cases belong to the packages that import it."""
