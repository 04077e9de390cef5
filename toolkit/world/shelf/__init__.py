"""The shelf: many small everyday tools for training alone, written down in tables, a file a field (fields/*.toml).

The tools of `toolkit.world.tools` keep state and are asked for in the development set as well; invented ones are put
together by a grammar. Those of the shelf stand between them: each is about something else, is asked for in words that
mostly are not its own, and is shown under several names. Calls run in the world, as what they return is drawn from the
world's seed and the call.
"""
