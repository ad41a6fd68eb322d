"""The words of the page of all studies, which numbers do not make by themselves."""

INTRODUCTION = ""
MEANINGS: dict[str, str] = {}
