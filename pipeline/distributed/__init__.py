"""The other ranks: who they are, how they meet, agree to stop, and how fast their machines are."""
