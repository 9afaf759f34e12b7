"""`make bench`: the gateway beside nginx and Envoy, on this machine, in one run. `python -m bench --help` says how.

What is measured, for each contender alone on one core, with wrk and the provider's stand-in on another:

- requests/s at 32 connections, and how busy the contender was: below 95 % it was not the contender that set the pace,
  so the requests per second of its own CPU time stand beside it;
- added latency at 1 connection, p50 and p99: the contender's minus that of the stand-in without any contender, in the
  same round;
- memory of its process tree (sum of RSS): idle, after load, and the most it was with many streams open;
- time from exec to the first 200 of `GET /ready` on the port that serves;
- streams at full speed (32 at once): chunks/s and bytes/s; behind a busy contender chunks clump, so this is about
  bytes. And many at once at a provider's pace, where each chunk comes alone: what the contender adds to the first chunk
  and to each chunk on its way, its CPU time for one, its memory.

nginx is a plain proxy (kept connections, no log, no policy): the ceiling. Envoy has its local rate limit, outlier
detection and a JSON access log; llmroute has everything on: keys, a request limit, breaker, metrics, a JSON line for
each request. Logs go to /dev/null. Each contender is started afresh in each round, rounds take turns (A B C, B C A, …),
and what is printed is the median over rounds, so that a machine that drifts favours none. Numbers are for comparing
within one run: nothing fails on a slow one. What is added to a percentile is the difference of two percentiles.

Where things are: `machine` (cores, ports), `process` (start, stop, RSS, CPU), `provision` (gets the contenders),
`contenders/` (one file each), `upstream` (the stand-in), `load` (wrk), `streams` (paced streams), `rounds` (who is
measured when), `profile` (py-spy), `report` (table and JSON).
"""
