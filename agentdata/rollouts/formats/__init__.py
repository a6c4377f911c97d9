"""Trajectories in the forms of other projects, and back; `agentdata.rollouts.formats.exchange` is the way in."""
