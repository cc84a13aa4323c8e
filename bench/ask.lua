-- One query again and again over HTTP, for wrk: small.py gives the body, and reads the line at the end.

wrk.method = "POST"
wrk.body = os.getenv("ASK_BODY")
wrk.headers["Content-Type"] = os.getenv("ASK_CONTENT_TYPE")

function done(summary, latency)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   local line = '{"queries": %d, "failed": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f}'
   local p50, p99 = latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
   print(string.format(line, summary.requests, failed, summary.duration / 1e6, p50, p99))
end
