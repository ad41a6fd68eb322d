"""stub."""


def write_report(path, result, *, configuration, versions):
    path.write_text("<html></html>")
