"""The data that a person gives, and takes back: name, picture, phone number; and WeChat's message push."""
