"""Files of others' making, read without trusting them: archives, kits, image headers."""
