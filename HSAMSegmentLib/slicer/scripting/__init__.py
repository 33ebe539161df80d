"""What `HSAMSegmentLogic` offers to scripts in Slicer, by theme; all that the panel can do.

The names are camelCase, as Slicer's developers expect it of a logic. Nothing but the standard library is imported
before a method is called, since the application starts with the module.
"""
