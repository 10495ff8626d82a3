"""What a person gives of themselves, and takes back: name, picture, phone number."""
