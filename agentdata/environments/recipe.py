"""What a person, or later a model, may lay down about the environment of a repository: everything else is found."""

from datetime import datetime

from pydantic import Field, field_validator

from agentdata.records import Record


class EnvironmentRecipe(Record):
    """How to build the environments of one repository. What is left empty is found in the repository."""

    python: str = Field(default="", pattern=r"^(\d+\.\d+)?$")
    """Version as `3.11`."""
    until: str = ""
    """ISO 8601 time up to which packages are taken; that of each commit by default."""
    system_packages: tuple[str, ...] = ()
    """Debian packages."""
    requirements: tuple[str, ...] = ()
    """Requirements beside those that are found."""
    without: tuple[str, ...] = ()
    """Names of packages that are left out although they are declared."""
    lock: str = ""
    """The lock itself, one `name==version` a line: nothing is resolved then."""
    install: tuple[str, ...] = ()
    """Commands, run in /testbed without a network, that make the project importable."""
    test_command: str = "python -m pytest"
    """Command that runs the tests; names of files or tests are appended."""
    build_seconds: float = Field(default=1800, gt=0)
    """Longest time for all attempts at one environment."""
    step_seconds: float = Field(default=600, gt=0)
    """Longest time for one step of a build; it is taken to hang then."""
    most_attempts: int = Field(default=6, gt=0)
    """Most locks that are installed and tried for one environment."""

    @field_validator("until")
    @classmethod
    def _is_a_time(cls, until: str) -> str:
        if until:
            datetime.fromisoformat(until)
        return until


class EnvironmentRecipes(Record):
    """How to build the environments of all repositories."""

    default: EnvironmentRecipe = EnvironmentRecipe()
    """Holds for every repository."""
    repositories: dict[str, EnvironmentRecipe] = Field(default_factory=dict)
    """Holds for one, by its name as `owner/name`, instead of the default."""

    def of(self, repo: str) -> EnvironmentRecipe:
        """The recipe of a repository."""
        return self.repositories.get(repo, self.default)
