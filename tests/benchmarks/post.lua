-- wrk: post the body in the file that is the script's argument; report as tests/benchmarks/client.py does.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   wrk.body = file:read("*a")
   file:close()
   prepared = wrk.format()
end

function request()
   return prepared
end

function done(summary, latency, requests)
   local e = summary.errors
   local failed = e.connect + e.read + e.write + e.status + e.timeout
   io.write(string.format('{"answered": %d, "failed": %d, "seconds": %f, "p99": %f}\n',
      summary.requests, failed, summary.duration / 1e6, latency:percentile(99.0) / 1e3))
end
