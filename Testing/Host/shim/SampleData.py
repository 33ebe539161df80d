"""Stand-in for the Sample Data module: remembers what is registered."""

from __future__ import annotations


class SampleDataLogic:
    """Only the registration; nothing is downloaded."""

    sources: list[dict] = []  # noqa: RUF012 - one list for the application, as in Slicer

    @staticmethod
    def registerCustomSampleDataSource(**description):
        SampleDataLogic.sources.append(description)

    @staticmethod
    def isSampleDataSourceRegistered(category, source):
        return any(item.get("category") == category for item in SampleDataLogic.sources)
