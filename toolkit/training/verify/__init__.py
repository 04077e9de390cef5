"""`toolkit verify`: a run's first updates made again from what it left, and its exported files read again.

began.py     what the run began with: recipe, data, model, machine; what of it is another now
compare.py   numbers of then and now, how far apart they may be, the verdict
again.py     the first updates, trained anew without a run folder
run.py       all of that, and the record of it, verification.json
exported.py  files of an export against the hashes in its record
"""
