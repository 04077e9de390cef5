from toolkit.export.verify.report import VerifyReport


def as_markdown(r: VerifyReport) -> str:
    return ""


def as_html(r: VerifyReport) -> str:
    return ""
