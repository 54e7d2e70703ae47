"""Chat models behind any OpenAI-compatible API. Each request is sent once; later its answer comes from the disk.

client.py         the entry: requests in, replies out, each stored before it is used
connection.py     the server, and what is kept of its answers and their price
chat.py           a request, whose content is its key, and a reply
serialization.py  both as the JSON that is sent and received
cache.py          answers by key, shared by runs; locks on keys that are being requested
account.py        the answers of a run and their cost; the budget
limits.py         requests and tokens a minute; pauses
faults.py         failures: of the moment, of the row, or of the run
online.py         one HTTP request a chat request, many at a time
batch.py          the Batch API, at half the price, within a day; with batch_server.py and records.py
images.py         pictures as data URLs
pricing.py        dollars a token
"""
