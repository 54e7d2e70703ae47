"""Chat models behind any OpenAI-compatible API. Each request is sent once; later its answer is read from the disk.

client.py         the entry: requests in, replies out, each stored before it is used
connection.py     the server, and the answers and prices that are kept
chat.py           a request, its cache key, and a reply
serialization.py  both as the JSON that is sent and received
cache.py          answers by key, shared by runs; locks on keys that are being requested
account.py        the answers of a run and their cost; the budget
limits.py         requests and tokens a minute; pauses
faults.py         failures: transient, of the row, or of the run
online.py         one HTTP request per chat request, many at a time
batch.py          the Batch API, at half the price, within a day; with records.py
images.py         pictures as data URLs
pricing.py        dollars per token
"""
