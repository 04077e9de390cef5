"""A recipe as a job on somebody's machines: the files that their tools take. None of the tools is imported."""
