"""Measures what each way of training reaches on digits, for the quality model of daitn-topology.

    python3 digits.py DIGITS_CSV OUT_CSV        (needs numpy; about six minutes on one core)

DIGITS_CSV is examples/digits/digits.csv of this repository: 64 pixels from 0 to 16 and a label. Each line of OUT_CSV is
sites, Dirichlet alpha (None: IID), rule, rounds, seed, skew of the sites, skew between chains, skew within chains, test
accuracy. The model is an MLP 64-32-10; 2 local epochs, batch 32, rate 0.1, plain SGD.
"""
import numpy as np, sys, csv, itertools, multiprocessing as mp, os
os.environ["OMP_NUM_THREADS"]="1"
rows=list(csv.reader(open(sys.argv[1])))[1:]
A=np.array(rows,dtype=np.float32); X=A[:,:64]/16; Y=A[:,64].astype(int)
rs=np.random.RandomState(0); p=rs.permutation(len(X)); X=X[p];Y=Y[p]
XT,YT=X[1437:],Y[1437:]; X,Y=X[:1437],Y[:1437]
H=32;C=10
def init(seed):
    r=np.random.RandomState(seed)
    return np.concatenate([(r.uniform(-1,1,(64*H))*np.sqrt(1/64)),r.uniform(-1,1,H)*np.sqrt(1/64),r.uniform(-1,1,H*C)*np.sqrt(1/H),r.uniform(-1,1,C)*np.sqrt(1/H)]).astype(np.float32)
def un(w):
    a=64*H;b=a+H;c=b+H*C
    return w[:a].reshape(64,H),w[a:b],w[b:c].reshape(H,C),w[c:]
def grad(w,x,y):
    W1,b1,W2,b2=un(w)
    h=x@W1+b1; a=np.maximum(h,0); o=a@W2+b2
    o=o-o.max(1,keepdims=True); e=np.exp(o); pr=e/e.sum(1,keepdims=True)
    pr[np.arange(len(y)),y]-=1; pr/=len(y)
    g=np.empty_like(w); G=un(g)
    G[2][:]=a.T@pr; G[3][:]=pr.sum(0); d=(pr@W2.T)*(h>0); G[0][:]=x.T@d; G[1][:]=d.sum(0)
    return g
def acc(w):
    W1,b1,W2,b2=un(w); return float((((np.maximum(XT@W1+b1,0))@W2+b2).argmax(1)==YT).mean())
def local(w,x,y,r,epochs=2,lr=.1,corr=None):
    w=w.copy(); steps=0
    for _ in range(epochs):
        p=r.permutation(len(x))
        for i in range(0,len(x),32):
            j=p[i:i+32]; g=grad(w,x[j],y[j])
            if corr is not None: g=g+corr
            w-=lr*g; steps+=1
    return w,steps
def split(n,alpha,r):
    if alpha is None:
        parts=np.array_split(r.permutation(len(X)),n)
    else:
        while True:
            parts=[[] for _ in range(n)]
            for c in range(C):
                idx=r.permutation(np.where(Y==c)[0]); q=r.dirichlet([alpha]*n); cut=(np.cumsum(q)*len(idx)).astype(int)[:-1]
                for k,s in enumerate(np.split(idx,cut)): parts[k]+=list(s)
            if min(map(len,parts))>=2: break
            if n>=20 and sum(len(q)>=2 for q in parts)>=0.6*n:
                parts=[q for q in parts if len(q)>=2]; break
    return [np.array(p) for p in parts]
def skew(dists,w):
    w=np.array(w,float)/np.sum(w); pool=(w[:,None]*dists).sum(0)
    return float((w*0.5*np.abs(dists-pool).sum(1)).sum()/(1-(pool**2).sum()))
def clusters(parts,c,by):
    n=len(parts); d=[np.bincount(Y[q],minlength=C)/1.0 for q in parts]; pool=sum(d)/sum(map(np.sum,d))
    cap=-(-n//c); cl=[[] for _ in range(c)]; cs=[np.zeros(C) for _ in range(c)]
    order=sorted(range(n),key=lambda i:-d[i].sum())
    for j,i in enumerate(order):
        if by=='mix':
            best=None
            for k in range(c):
                if len(cl[k])>=cap: continue
                # change of record-weighted distance
                a=0.5*np.abs(cs[k]-cs[k].sum()*pool).sum(); m=cs[k]+d[i]; b=0.5*np.abs(m-m.sum()*pool).sum()
                key=(b-a,len(cl[k]),k)
                if best is None or key<best[0]: best=(key,k)
            k=best[1]
        else: k=j%c
        cl[k].append(i); cs[k]+=d[i]
    return cl,cs
def run(job):
    n,alpha,rule,rounds,seed=job
    r=np.random.RandomState(1000+seed)
    parts=split(n,alpha,r); D=[(X[q],Y[q]) for q in parts]; nk=np.array([len(q) for q in parts],float)
    dists=np.array([np.bincount(Y[q],minlength=C)/len(q) for q in parts])
    s=skew(dists,nk); w=init(seed); wt=nk/nk.sum()
    m=np.zeros_like(w); v=np.full_like(w,1e-6); c=np.zeros_like(w); ck=[np.zeros_like(w) for _ in D]
    sb=sw=0.
    if rule.startswith('hybrid'):
        k=int(rule[6]); by=rule[7:]
        cl,cs=clusters(parts,k,by); cw=np.array([x.sum() for x in cs]); sb=skew(np.array([x/x.sum() for x in cs]),cw)
        sw=float(sum(cw[q]/cw.sum()*skew(dists[cl[q]],nk[cl[q]]) for q in range(k) if len(cl[q])))
    for t in range(rounds):
        if rule=='central':
            w,_=local(w,X,Y,r); continue
        if rule=='itinerary':
            for i in r.permutation(len(D)): w,_=local(w,*D[i],r)
            continue
        if rule.startswith('hybrid'):
            ends=[]
            for q in cl:
                y=w
                for i in r.permutation(q): y,_=local(y,*D[i],r)
                ends.append(y)
            w=sum((cw[q]/cw.sum())*ends[q] for q in range(len(cl))).astype(np.float32); continue
        if rule=='scaffold':
            dy=np.zeros_like(w);dc=np.zeros_like(w)
            for i,(x,y) in enumerate(D):
                yk,M=local(w,x,y,r,corr=c-ck[i]); ckn=ck[i]-c+(w-yk)/(M*.1); dy+=wt[i]*(yk-w); dc+=ckn-ck[i]; ck[i]=ckn
            w=w+dy; c=c+dc/len(D); continue
        d=sum(wt[i]*(local(w,*D[i],r)[0]-w) for i in range(len(D))).astype(np.float32)
        if rule=='fedavg': w=w+d
        elif rule=='fedavgm': m=.9*m+d; w=w+m
        elif rule=='fedadam': m=.9*m+.1*d; v=.99*v+.01*d*d; w=w+10**-1.5*m/(np.sqrt(v)+1e-3)
        elif rule=='fedyogi': m=.9*m+.1*d; v=v-.01*d*d*np.sign(v-d*d); w=w+10**-1.5*m/(np.sqrt(v)+1e-3)
        elif rule=='fedadagrad': v=v+d*d; w=w+.1*d/(np.sqrt(v)+1e-3)
        w=w.astype(np.float32)
    return (n,alpha,rule,rounds,seed,s,sb,sw,acc(w))
if __name__=='__main__':
    jobs=[]
    for rounds in (10,50):
      for seed in range(3):
        jobs.append((1,None,'central',rounds,seed))
        for alpha in (None,.5,.1,.03):
            for n in (3,5,10,20,40):
                for rule in ('fedavg','fedavgm','fedadam','fedadagrad','scaffold','itinerary')+(('hybrid2mix','hybrid2any','hybrid4mix') if n>=5 else ()):
                    jobs.append((n,alpha,rule,rounds,seed))
    out=open(sys.argv[2],'w')
    with mp.Pool(1) as pool:
        for res in pool.imap(run,jobs): out.write(','.join(map(str,res))+'\n'); out.flush()
