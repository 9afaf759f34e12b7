"""`make bench`: the gateway beside nginx, Envoy, Portkey and LiteLLM, on this machine, in one run.

`python -m bench --help` says how. What is measured, for each contender alone on one core, with wrk and the provider's
stand-in on another:

- requests/s at 32 connections, and how busy the contender was: below 95 % it was not the contender that set the pace,
  so the requests per second of its own CPU time stand beside it;
- added latency at 1 connection, p50 and p99: the contender's minus that of the stand-in without any contender, in the
  same round;
- memory of its process tree (sum of RSS): idle, after load, and the most it was with many streams open;
- time from exec to the first 200 of its readiness path on the port that serves;
- streams at full speed (32 at once): chunks/s and bytes/s; behind a busy contender chunks clump, so this is about
  bytes. And many at once at a provider's pace, where each chunk comes alone: what the contender adds to the first chunk
  and to each chunk on its way, its CPU time for one, its memory;
- of those that take a change of configuration while they run (llmroute, Envoy, nginx), all that matters again with one
  each second, and how long anybody waited at most, seen by a prober that asks twice each millisecond and waits for
  nobody. And that again with 1,000 models, each of which every change touches (llmroute).

nginx is a plain proxy (kept connections, no log, no policy): the ceiling. Envoy has its local rate limit, outlier
detection and a JSON access log; LiteLLM and Portkey are as their docs want them, and are asked less where they cannot
carry as much (the report says of what); llmroute has everything on: keys, a request limit, breaker, metrics, a JSON
line for each request. Logs go to /dev/null. Each contender is started afresh in each round, with nothing of this
process's environment, rounds take turns (A B C, B C A, …), and what is printed is the median over rounds, so that a
machine that drifts favours none; rounds in which others had more than a tenth of the contender's core are left out
where there are better ones. Numbers are for comparing within one run: nothing fails on a slow one. What is added to a
percentile is the difference of two percentiles.

llmroute is measured as its image has it: Debian's Python where there is one, the packages that the gateway needs alone,
the sources of this tree, compiled (where there is no C compiler, as they stand, and the report says so); `--gateway`
names another.

Where things are: `machine` (cores, ports), `process` (start, stop, RSS, CPU), `provision` (gets the contenders),
`contenders/` (one file each), `upstream` (the stand-in), `load` (wrk), `streams` (paced streams), `probe` (paced
requests), `reload` (what is measured under changes), `rounds` (who is measured when), `profile` (py-spy),
`measures` (what is told), `bars`, `report` (tables and JSON). Apart from all of it, run by their own names:
`controller`, `injector`, `sizing` (what one process carries), and `mixed`, which measures nothing but whether the books
agree.
"""
