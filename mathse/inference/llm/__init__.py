"""Chat models behind any OpenAI-compatible API: asked once, answered from the disk ever after.

chat.py      what is asked and what comes back; a request's content is its key
client.py    the one door: requests in, replies out, each on the disk before anything counts on it
cache.py     answers by key, shared by runs; who is asking for a key right now
account.py   what a run has been answered, and what it cost; the budget
limits.py    requests and tokens a minute; waiting together
faults.py    which failure is the moment's, which the row's and which the run's
online.py    one HTTP request a chat request, many at a time
batch.py     the Batch API: half the price, within a day
images.py    pictures as data URLs
pricing.py   dollars a token
"""
