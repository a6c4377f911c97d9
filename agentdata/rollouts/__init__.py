"""Tasks to trajectories: policies, scaffolds, the loop, and the run that grades what they submit."""
