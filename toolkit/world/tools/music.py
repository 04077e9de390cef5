"""A music player with playlists."""

from __future__ import annotations

from random import Random
from typing import Any

from toolkit.world.language import Said, small
from toolkit.world.lexicon import song, words
from toolkit.world.spec import ToolFailure, Unsuitable, chain, integer, only, optional, part, string, tool
from toolkit.world.world import World


@part("music")
def build(r: Random, w: World) -> dict[str, Any]:
    titles = list(dict.fromkeys(song(r) for _ in range(16)))
    artists = r.sample(words("artist"), 5)
    songs = [
        {
            "id": f"so{400 + n * 9 + r.randrange(8)}",
            "title": title,
            "artist": artists[n % 5],
            "seconds": r.randint(120, 340),
            "plays": r.randint(0, 9000),
        }
        for n, title in enumerate(titles)
    ]
    playlists = {name: [row["id"] for row in r.sample(songs, 3)] for name in r.sample(words("playlist"), 4)}
    return {
        "songs": songs,
        "playlists": playlists,
        "playing": None,
        "volume": r.randrange(10, 91, 5),
        "liked": [],
        "timer": None,
    }


def _song(w: World, song_id: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = w["music"]["songs"]
    for row in rows:
        if row["id"] == song_id:
            return row
    raise ToolFailure(f"no song {song_id}")


def _playlist(w: World, playlist: str) -> list[str]:
    lists: dict[str, list[str]] = w["music"]["playlists"]
    if playlist not in lists:
        raise ToolFailure(f"no playlist {playlist}; there are: {', '.join(lists)}")
    return lists[playlist]


def _slots(r: Random, w: World) -> dict[str, Any]:
    state = w["music"]
    row = r.choice(state["songs"])
    playlist = r.choice(list(state["playlists"]))
    free = [row["id"] for row in state["songs"] if row["id"] not in state["playlists"][playlist]]
    new = r.choice([name for name in words("playlist") if name not in state["playlists"]])
    name = f"{new} {r.choice(('', 'mix', r.randint(2, 99), r.choice(words('project'))))}".strip()
    return {
        "query": Said(title := r.choice((row["title"], row["artist"])), f'"{title}"'),
        "title": Said(row["title"], f'"{row["title"]}"'),
        "artist": Said(row["artist"], row["artist"]),
        "song_id": r.choice(free),
        "playlist": Said(playlist, f'"{playlist}"'),
        "name": Said(name, f'"{name}"'),
        "volume": r.randint(1, 100),
        "minutes": r.randint(5, 120),
        "limit": small(r, 2, 5),
    }


def _bad(r: Random, w: World) -> dict[str, Any]:
    name = r.choice([name for name in words("playlist") if name not in w["music"]["playlists"]])
    old = r.choice(list(w["music"]["playlists"]))
    return {"song_id": f"so{r.randint(700, 999)}", "playlist": Said(name, f'"{name}"'), "name": Said(old, f'"{old}"')}


_SONG = string("Id of the song, as in so412.")
_LIST = string("Name of the playlist.")


@tool(
    "music",
    "Search songs by title or artist.",
    sample=_slots,
    near=("top_songs",),
    params={"query": string("Title or artist.")},
)
def search_songs(w: World, query: str) -> Any:
    rows = [row for row in w["music"]["songs"] if query.lower() in f"{row['title']} / {row['artist']}".lower()]
    return {"songs": [{key: row[key] for key in ("id", "title", "artist")} for row in rows[:5]]}


@tool(
    "music",
    "Play one song. Needs the song's id.",
    sample=_slots,
    bad=_bad,
    near=("play_playlist",),
    params={"song_id": _SONG},
)
def play_song(w: World, song_id: str) -> Any:
    row = _song(w, song_id)
    row["plays"] += 1
    w["music"]["playing"] = song_id
    return {"playing": row["title"], "artist": row["artist"], "seconds": row["seconds"]}


@tool(
    "music",
    "Play a playlist from its start.",
    sample=_slots,
    bad=_bad,
    near=("play_song",),
    params={"playlist": _LIST},
)
def play_playlist(w: World, playlist: str) -> Any:
    ids = _playlist(w, playlist)
    if not ids:
        raise ToolFailure(f"the playlist {playlist} is empty")
    w["music"]["playing"] = ids[0]
    return {"playlist": playlist, "songs": len(ids), "first": _song(w, ids[0])["title"]}


@tool(
    "music",
    "Make a new, empty playlist.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"name": string("Name of the new playlist.")},
)
def create_playlist(w: World, name: str) -> Any:
    if name in w["music"]["playlists"]:
        raise ToolFailure(f"playlist exists: {name}")
    w["music"]["playlists"][name] = []
    return {"created": name, "playlists": len(w["music"]["playlists"])}


@tool(
    "music",
    "Add a song to a playlist. Needs the song's id.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"playlist": _LIST, "song_id": _SONG},
)
def add_to_playlist(w: World, playlist: str, song_id: str) -> Any:
    row, ids = _song(w, song_id), _playlist(w, playlist)
    if song_id in ids:
        raise ToolFailure(f"{row['title']} is already in {playlist}")
    ids.append(song_id)
    return {"playlist": playlist, "added": row["title"], "songs": len(ids)}


@tool(
    "music",
    "Delete a playlist; the songs stay in the library.",
    sample=_slots,
    bad=_bad,
    near=(),
    params={"playlist": _LIST},
)
def delete_playlist(w: World, playlist: str) -> Any:
    _playlist(w, playlist)
    del w["music"]["playlists"][playlist]
    return {"deleted": playlist, "playlists_left": len(w["music"]["playlists"])}


@tool(
    "music",
    "List an artist's most played songs.",
    sample=_slots,
    near=("search_songs",),
    params={"artist": string("Name of the artist."), "limit": optional(integer("How many; 3 if left out.", 1, 20))},
)
def top_songs(w: World, artist: str, limit: int = 3) -> Any:
    rows = sorted((row for row in w["music"]["songs"] if row["artist"] == artist), key=lambda row: -row["plays"])
    return {"artist": artist, "songs": [{key: row[key] for key in ("id", "title", "plays")} for row in rows[:limit]]}


@tool(
    "music",
    "Set the volume of the player.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"volume": integer("Volume from 0 to 100.", 0, 100)},
)
def set_volume(w: World, volume: int) -> Any:
    before, w["music"]["volume"] = w["music"]["volume"], volume
    return {"before": before, "volume": volume}


@tool(
    "music",
    "Stop the music after some minutes.",
    sample=_slots,
    held_out=True,
    near=(),
    params={"minutes": integer("After how many minutes.", 1, 600)},
)
def sleep_timer(w: World, minutes: int) -> Any:
    w["music"]["timer"] = minutes
    return {"stops_in_minutes": minutes}


@tool("music", "Like a song. Needs the song's id.", sample=_slots, held_out=True, near=(), params={"song_id": _SONG})
def like_song(w: World, song_id: str) -> Any:
    row = _song(w, song_id)
    if song_id not in w["music"]["liked"]:
        w["music"]["liked"].append(song_id)
    return {"liked": row["title"], "likes": len(w["music"]["liked"])}


def _chain_slots(r: Random, w: World) -> dict[str, Any]:
    return {f"_{key}": value for key, value in _slots(r, w).items()}


@chain("music", "search_songs", "play_song", sample=_chain_slots)
def search_and_play(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do("play_song", song_id=only(do("search_songs", query=s["_title"])["songs"])["id"])


@chain("music", "search_songs", "add_to_playlist", sample=_chain_slots)
def search_and_add(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    return do(
        "add_to_playlist", playlist=s["_playlist"], song_id=only(do("search_songs", query=s["_title"])["songs"])["id"]
    )


@chain("music", "top_songs", "play_song", sample=_chain_slots)
def play_top(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    row, *others = do("top_songs", artist=s["_artist"])["songs"]
    if any(other["plays"] == row["plays"] for other in others):
        raise Unsuitable("equally often played")
    return {"plays": row["plays"], **do("play_song", song_id=row["id"])}


@chain("music", "create_playlist", "top_songs", "add_to_playlist", sample=_chain_slots)
def artist_playlist(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    do("create_playlist", name=s["_name"])
    rows = do("top_songs", artist=s["_artist"], limit=2)["songs"]
    if len(rows) != 2 or rows[0]["plays"] == rows[1]["plays"]:
        raise Unsuitable("two songs needed")
    do.all(*(("add_to_playlist", {"playlist": s["_name"], "song_id": row["id"]}) for row in rows))
    return {"titles": [row["title"] for row in rows]}


@chain("music", "set_volume", "sleep_timer", sample=_chain_slots)
def softer_timer(do: Any, s: dict[str, Any]) -> dict[str, Any]:
    before = do("set_volume", volume=s["_volume"])["before"]
    do("sleep_timer", minutes=before)
    return {"before": before}
