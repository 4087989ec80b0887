"""``python -m tornado_logsrv.verify``: is what the server acknowledges stored exactly once, whatever is killed?

balance     what was sent against what is there; pure
requests    what a client may send, by chance; pure
wire        HTTP/1.1 over one connection, as little as is needed
load        the clients: send, resend, keep what was answered
processes   the log servers and the servers behind them: started, killed, frozen
faults      who is killed when, by chance
found       what MongoDB and Redis hold at the end
progress    the bar
samples     what the processes take, and whether that grows
trial       one run from start to end
"""
