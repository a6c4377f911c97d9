"""Repository history to changes, and changes to contextual samples whose every observation is proved."""
