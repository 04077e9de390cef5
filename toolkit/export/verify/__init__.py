"""Whether an export's files are the model that was trained: measured, reported, and a gate on the result."""

from toolkit.export.verify.verify import verify
from toolkit.export_report import Check, VerifyReport

__all__ = ["Check", "VerifyReport", "verify"]
