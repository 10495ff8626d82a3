"""The pictures that users upload as their avatars."""
