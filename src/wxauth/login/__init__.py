"""Getting in, staying in, getting out."""
