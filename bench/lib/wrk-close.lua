-- One request per connection; prints the same report. A close after the answer is asked for, so it is no read error.
wrk.headers["Connection"] = "close"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('REPORT {"requests":%d,"failed":%d,"us":%d,"p50":%d,"p99":%d,"p999":%d}\n', summary.requests,
    e.connect + e.write + e.status + e.timeout, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
