"""What authors wrote, made fit to train on: titles and bodies out of messages, without trailers, CI marks, addresses."""

import re
from dataclasses import dataclass

from agentdata.records import LandingKind

TRAILER = re.compile(
    r"^[ \t]*(?:(?:signed-off|co-authored|co-developed|reviewed|acked|tested|reported|suggested|approved|helped|mentored"
    r"|requested|authored|committed|submitted|merged|noticed|thanks)[- ](?:by|to)|cc|change-id|reviewed-on|git-svn-id"
    r"|piperorigin-revid|differential revision|auto-submit|commit-queue|gerrit-\w+|phabricator-\w+|tbr"
    r"|pair-programmed-with|pull-request(?:-sha)?|summary-of-changes-id|tree-id|see merge request)"
    r"(?:[ \t]*:|[ \t]+\S+!\d+).*(?:\n|\Z)"
    r"|^[ \t]*\(cherry picked from commit [0-9a-f]+\)[ \t]*(?:\n|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
CI_MARK = re.compile(
    r"(?<![ \t])[ \t]*(?:\[(?:skip[ -](?:ci|actions|travis|appveyor|azp|docs|cd|tests?)"
    r"|(?:ci|actions|travis|appveyor|azp)[ -]skip|no[ -]ci)\]"
    r"|\*\*\*NO_CI\*\*\*)",
    re.IGNORECASE,
)
NOISE = re.compile(
    r"<!--[\s\S]*?-->"
    r"|(?<=\n\n)-{9}[ \t]*(?=\n|\Z)"
    r"|^[ \t]*(?:\* )?\[pre-commit\.ci(?: lite)?\] auto fixes.*(?:\n+for more information, see https://pre-commit\.ci\S*)?"
    r"|^[ \t]*\* Merge (?:remote-tracking )?branch .*"
    r"|^[ \t]*(?:🤖 )?Generated with \[.*\]\(.*\)[ \t]*$",
    re.MULTILINE,
)
EMAIL = re.compile(r"<?(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}>?")
NUMBER = re.compile(r"(?<![ \t])[ \t]*\((?:#|!|PR ?#?)\d+\)[ \t]*$")
MERGE = re.compile(r"^Merge[d ]")
MERGE_TITLE = re.compile(
    r"^(?:Merge (?:pull request '(.+)' \(#\d+\)|\"(.+)\" into \S+)|(?:Pull request #\d+|Merged PR \d+): (.+)$)"
)
MERGE_LIST = re.compile(r"\AMerge in \S+ from \S+ to \S+\s*(?:\* commit .*)?\Z", re.DOTALL)
"""What Bitbucket Server writes below the title."""
CLOSES = re.compile(
    r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?)\b[:\s]+(?:issue\s+)?(?:([\w.-]+/[\w.-]+))?#(\d+)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A text and how much was taken out of it."""

    text: str
    emails: int = 0
    trailers: int = 0


def clean(text: str) -> Cleaned:
    """Remove trailer lines and CI marks, replace e-mail addresses by `<email>`, and normalise line ends."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    text, trailers = TRAILER.subn("", text)
    text, marks = CI_MARK.subn("", text)
    text, emails = EMAIL.subn("<email>", text)
    return Cleaned(NOISE.sub("", text).strip(), emails, trailers + marks)


def split_message(message: str) -> tuple[str, str]:
    """Subject and body of a commit message."""
    subject, _, body = message.strip().partition("\n")
    return subject.strip(), body.strip()


def title_of(kind: LandingKind, landed_message: str, first_message: str) -> tuple[str, str]:
    """Title and body of a change from the message it landed with, else from its first commit.

    Messages are cleaned ones. A forge's merge message holds the title in quotes or in its third line.
    """
    subject, body = split_message(landed_message)
    if kind in ("merge", "squash"):
        quoted = MERGE_TITLE.match(subject)
        if quoted:
            title, body = quoted[1] or quoted[2] or quoted[3], MERGE_LIST.sub("", body)
            first, rest = split_message(first_message)
            return title, body or (rest if first == title else "")  # Gerrit says it all in the commit.
        if MERGE.match(subject) and (kind == "merge" or subject.startswith("Merged in ")):
            subject, body = split_message(body)
            if subject.startswith("* ") or not subject:
                subject, body = split_message(first_message)
            return NUMBER.sub("", subject), body
    if kind == "rebase":
        subject, body = split_message(first_message)
    return NUMBER.sub("", subject), body


def thought_of(message: str) -> str:
    """A cleaned commit message without the number that a forge put behind its subject."""
    subject, end, body = message.partition("\n")
    return NUMBER.sub("", subject) + end + body


def closed_issues(*texts: str) -> list[int]:
    """Numbers of the issues of the same repository that texts say they close, in order."""
    return list(
        dict.fromkeys(
            int(number) for text in texts for repo, number in CLOSES.findall(text) if not repo and len(number) < 10
        )
    )
