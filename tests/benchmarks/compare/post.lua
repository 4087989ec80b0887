-- wrk: post the bodies in the file that is the script's argument, one a line, in turns.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

local prepared, next_one = {}, 0

function init(arguments)
   for body in io.lines(arguments[1]) do
      prepared[#prepared + 1] = wrk.format(nil, nil, nil, body)
   end
end

function request()
   next_one = next_one % #prepared + 1
   return prepared[next_one]
end

function done(summary, latency, requests)
   local e = summary.errors
   local failed = e.connect + e.read + e.write + e.status + e.timeout
   io.write(string.format('{"answered": %d, "failed": %d, "seconds": %f, "p50": %f, "p99": %f}\n',
      summary.requests, failed, summary.duration / 1e6, latency:percentile(50.0) / 1e3, latency:percentile(99.0) / 1e3))
end
