"""Whether an export's files are the model that was trained: measured, reported, and a gate on the result."""

from toolkit.export.verify.report import Check, VerifyReport
from toolkit.export.verify.verify import verify

__all__ = ["Check", "VerifyReport", "verify"]
