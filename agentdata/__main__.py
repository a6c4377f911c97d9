"""`python -m agentdata`, which is how torchrun starts it."""

from agentdata.cli.main import main

if __name__ == "__main__":
    main()
